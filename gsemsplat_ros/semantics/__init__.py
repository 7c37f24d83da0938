"""From rendered codes and phrases to answers.

Takes codes of pixels or Gaussians, and phrases; gives relevancy and objects.

answer: the `Question` and the `Answer` for scene, map and node
words: the reading of a phrase, and what of it is not understood
lexicon: household words, and the class names that mean them
text: phrases to unit vectors of the checkpoint's text space
decoder: codes to that space, and the fast comparison with phrases
relevancy: LERF relevancy, smoothing, the threshold
objects: relevant Gaussians grouped into boxes
"""
