"""The browser of runs. Start reading at tab.py: a run's page, on which its steps are done.

Nothing but tab.py and elements.py needs Playwright to be installed; chromium.py imports it when the
first step in a browser comes.
"""
