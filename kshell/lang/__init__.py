"""The language: text to syntax tree and back, tokens, completion, number and format letters. Knows no target.

The specification is mdb's own language; ``kshell.evaluate`` and ``kshell.formatverb`` give the tree its meaning.
"""
