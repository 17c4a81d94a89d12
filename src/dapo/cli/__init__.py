"""The command ``dapo``: a thin shell over the package.

``main`` is the group, one file a verb. Starting it imports click and nothing else; a verb's file is imported
when that verb is used, and torch when an image is about to be looked at.
"""
