// Command forkexec starts children, of its own binary too, whose goroutines are not its own; and, as asked, replaces
// itself by another run of the binary.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"gotracer.test/programs/report"
)

var (
	children = flag.Int("children", 10, "children to start")
	n        = flag.Int("n", 30, "goroutines of its own")
	mode     = flag.String("mode", "", `"child": what a child does; "reexec": replace the program after the tally`)
)

func main() {
	flag.Parse()
	debug.SetGCPercent(-1)
	if *mode == "child" {
		own := startAndAwait()
		// The parent checks that its child did start goroutines.
		fmt.Println(own.Exited)
		return
	}
	report.Ready(fmt.Sprintf(`{"pid":%d}`, os.Getpid()))
	report.Await("go")
	if *mode == "reexec" {
		reexec()
	}

	own := startAndAwait()
	started := int64(0)
	for i := 0; i < *children; i++ {
		// Output makes os/exec start goroutines or not as the version has it: they are at other sites than ours.
		out, err := exec.Command(self(), "-mode", "child", "-n", strconv.Itoa(*n)).Output()
		if err != nil {
			report.Fail("a child failed: %v", err)
		}
		ended, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err != nil || ended != int64(*n) {
			report.Fail("a child said %q", out)
		}
		started += ended
	}
	report.TallyWith(fmt.Sprintf(`"started_by_children":%d,`, started), own)
	report.Await("quit")
}

// startAndAwait starts goroutines that end at once, and waits until they have.
func startAndAwait() *report.Site {
	before := runtime.NumGoroutine()
	own := report.New(*n)
	for i := 0; i < *n; i++ {
		own.Next()
		go enterAndLeave(own)
	}
	report.AwaitNumGoroutine(before)
	return own
}

//go:noinline
func enterAndLeave(site *report.Site) {
	site.Enter()
	site.Leave()
}

// reexec starts some goroutines, prints their tally, and becomes a new program in the same process.
func reexec() {
	report.Tally(startAndAwait())
	report.Await("exec")
	err := syscall.Exec(self(), []string{os.Args[0], "-n", strconv.Itoa(*n)}, os.Environ())
	report.Fail("exec: %v", err)
}

// self is a path that also serves when the file has been deleted or lies in another mount namespace.
func self() string {
	return "/proc/self/exe"
}
