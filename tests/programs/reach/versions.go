package main

// What only some Go versions have.
var more []maker

func versioned() []maker { return more }
