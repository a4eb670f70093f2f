package main

import (
	"io"
	"runtime/pprof"
)

// ownProfile takes the runtime's own leak profile, where there is one, and gives the goids that it marked.
func ownProfile() string {
	profile := pprof.Lookup("goroutineleak")
	if profile == nil {
		return "null"
	}
	if err := profile.WriteTo(io.Discard, 0); err != nil {
		return "null"
	}
	return leakedByRuntime()
}
