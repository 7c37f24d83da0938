"""HTML reports: takes the results of a command, gives one self-contained page.

markup: HTML in which everything else is escaped
pair_result: the results of a pair, also for summary.json
checkpoint_card: the card of a checkpoint as a part of a page
pair_page: the page of `infer` and `demo`, from report.html
house_result, house_page: the page of `demo --house`
evaluation_page: the pages of evaluations, and the views of `eval scannetpp`
pairs_page: the pairs of `eval pairs`
"""
