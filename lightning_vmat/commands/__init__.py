"""The functions behind the `vmat` commands: parse, call one function, print."""
