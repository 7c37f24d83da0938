"""Everything that needs a GPU, in one run: takes a device and minutes, gives tables.

run: the parts, each in a process with a time limit
report: their tables
parts: the machine, both networks, renderers
profile: kernels, and gaps between them
node: from the images of a camera to the rows of a message
variants: ways to be faster, one by one
tests: those marked cuda
train: a training in the minutes left
"""
