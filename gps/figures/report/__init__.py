"""A run, or several runs, as one HTML page that needs no network: curves, episodes in the scene, settings.

Python says what is shown, in the words of plotly's figures; page.js draws it. What comes from a run's folder is data in
the page and never markup; page.py says how.
"""
