"""Runs and comparisons → one HTML page that needs nothing else, and Markdown.

    write_report([Path("runs/assistant")], Path("report"))     # report/report.html, report/report.md

`gather` reads folders, `facts` says what is found there, `answers` makes confusion matrices, error types and calibration of
predictions; `palette`, `svg`, `charts` and `strips` draw; `page` and `markdown` write. What is read knows nothing of what is drawn.
"""
