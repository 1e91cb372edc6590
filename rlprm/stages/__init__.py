"""The stages of the command line; each reads the files that earlier stages wrote."""
