"""Where the stages run: each file runs the stage of its name on Ray. The only place that imports Ray."""
