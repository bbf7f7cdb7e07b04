"""One module for each section of the language's reference; each rule has a test whose name or id has its section."""
