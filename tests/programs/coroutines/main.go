// Command coroutines makes coroutines with iter.Pull, which the runtime starts and ends by ways of their own.
package main

import (
	"flag"
	"runtime/debug"

	"gotracer.test/programs/report"
)

var (
	n      = flag.Int("n", 40, "coroutines of each kind")
	values = flag.Int("values", 25, "values taken from each")
)

func main() {
	flag.Parse()
	debug.SetGCPercent(-1)
	report.Ready("")
	report.Await("go")
	work()
	report.Await("quit")
}
