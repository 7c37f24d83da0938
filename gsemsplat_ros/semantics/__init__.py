"""From rendered codes and phrases to answers.

Takes codes of pixels or Gaussians, and phrases; gives relevancy and objects.

answer: the `Question` and the `Answer` for scene, map and node
words: the reading of a phrase, and what of it is not understood
lexicon: household words, and the class names that mean them
text: sentence encoders, phrases to unit vectors
class_words: phrases to a unit vector and a mixture of class names
text_spaces: the text space of a checkpoint, by its name
decoder: codes to that space, and the fast comparison with phrases
relevancy: LERF relevancy, smoothing, the threshold
object_history: what a map remembers of an object
objects: relevant Gaussians grouped into boxes
members: which Gaussians those of an answer are
"""
