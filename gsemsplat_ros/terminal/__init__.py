"""The input and output of commands.

arguments: arguments that several commands share, and types of values
console: tables or JSON on stdout, notes and progress on stderr
log_notes: log messages of the core as notes
json_values: values as JSON
output: folders and files of results
results: table of answers and report of `infer` and `demo`
versions: versions of the package and its libraries
"""
