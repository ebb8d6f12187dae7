"""Files that appear whole or not at all, and YAML that is read with one-line errors."""
