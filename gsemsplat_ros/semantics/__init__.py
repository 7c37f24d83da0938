"""Words and codes: text encoders, the code-to-text-space decoder, relevancy and objects."""
