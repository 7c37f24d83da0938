"""Speed and memory: takes a pipeline and sizes, gives times of each stage.

tools: clock, statistics, memory, the machine's peak
plain: the public algorithm in plain steps
stages: the compared stages with their inputs
flops: floating-point operations of both paths
compare: the plain and the fast path, in alternation
scale: growth with image size, map and queries
furnished_map: a synthetic map of any size
plot: the plot of that growth
train: loading and steps of the training of the small network
"""
