"""The shell: command line, scripts, prompt. The only place that knows click, prompt_toolkit and pygments."""
