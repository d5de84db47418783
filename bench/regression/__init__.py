"""What a change of the code did to quality: compared in pairs, and over the history of the results.

From records and influences alone, without torch. `revisions` makes the records where they are not
there yet.
"""
