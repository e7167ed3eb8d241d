"""What is recorded, and how it came about.

``repository``
    The book's repository: where recorded files and trained models lie, and its commit.
``provenance``
    Recorded tables and images, with the command, commit, seeds and machine that made them.
``recording``
    The result of a full-scale run, until it is written; the small images that it shows.
``workspace``
    Finished parts of a long run, kept in files, so that a run that was killed goes on.
``versions``
    What a notebook ran with, in one line.
"""
