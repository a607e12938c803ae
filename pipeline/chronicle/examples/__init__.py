"""Processors to start from: recruitment analytics, compliance, archival. Name a module in `processors`, or copy it.

Each says what it needs of a row and what it cannot know: a processor has one batch and the images in it, no history.
"""
