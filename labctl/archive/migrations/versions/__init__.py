"""One file a change of the schema; the numbers count up."""
