"""What depends on a script: checks of texts, runs of script, the analyzer of lexical search."""
