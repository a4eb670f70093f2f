package report

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// AwaitParked waits until n goroutines with a frame of one of the functions on their stack are parked, by the
// runtime's own traceback of all goroutines, and counts one park for each. What the caller then does may wake each of
// them once.
//
// This is what makes a count of parks exact: a goroutine that is seen waiting has parked, and parks again only after
// main has woken it.
func (s *Site) AwaitParked(n int, functions ...string) {
	var seen string
	ok := poll(func() bool {
		reasons := map[string]int64{}
		seen = allStacks()
		parked := 0
		for _, block := range strings.Split(seen, "\n\n") {
			if !onStack(block, functions) {
				continue
			}
			s.checkCreatedBy(block)
			if reason, waits := waitReason(block); waits {
				parked++
				reasons[reason]++
			}
		}
		if parked != n {
			return false
		}
		for reason, n := range reasons {
			s.Reasons[reason] += n
		}
		s.Blocked += int64(n)
		return true
	})
	if !ok {
		Fail("%d goroutines in %v were awaited parked:\n%s", n, functions, seen)
	}
}

func onStack(block string, functions []string) bool {
	for _, function := range functions {
		if strings.Contains(block, "\n"+function+"(") {
			return true
		}
	}
	return false
}

// AwaitNumGoroutine waits until as many goroutines exist as there should be: those that ended have gone all the way.
func AwaitNumGoroutine(n int) {
	if !poll(func() bool { return runtime.NumGoroutine() == n }) {
		Fail("%d goroutines were to be left:\n%s", n, allStacks())
	}
}

// AwaitGone waits until none of the sites' goroutines is left, where others may come and go.
func AwaitGone(sites ...*Site) {
	var seen string
	gone := func() bool {
		seen = allStacks()
		for _, s := range sites {
			if strings.Contains(seen, s.createdAt()) {
				return false
			}
		}
		return true
	}
	if !poll(gone) {
		Fail("the goroutines of some sites were to end:\n%s", seen)
	}
}

// AwaitLeft waits until n goroutines of the site are left.
func (s *Site) AwaitLeft(n int) {
	var seen string
	left := func() bool {
		seen = allStacks()
		return strings.Count(seen, s.createdAt()) == n
	}
	if !poll(left) {
		Fail("%d goroutines of %s:%d were to be left:\n%s", n, s.File, s.Line, seen)
	}
}

// poll asks until the answer is yes, for as long as patience lasts.
func poll(done func() bool) bool {
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(200 * time.Microsecond)
	}
	return true
}

// waitReason reads the head of a traceback, "goroutine 7 [chan receive, 2 minutes]:". States that are not a wait have
// names of their own.
func waitReason(block string) (string, bool) {
	state := block[strings.IndexByte(block, '[')+1:]
	state = state[:strings.IndexAny(state, ",]")]
	switch state {
	case "idle", "runnable", "running", "syscall", "dead", "copystack", "preempted":
		return "", false
	}
	return state, true
}

// checkCreatedBy holds Next against the runtime: a site that is one line off would fail the tests of gotracer.
func (s *Site) checkCreatedBy(block string) {
	if !strings.Contains(block, "\ncreated by "+s.Function) ||
		!strings.Contains(block, s.createdAt()) {
		Fail("%s at %s:%d is not where this was created:\n%s", s.Function, s.File, s.Line, block)
	}
}

// createdAt is the site as it stands in the last line of a traceback.
func (s *Site) createdAt() string {
	return fmt.Sprintf("%s:%d +0x", s.File, s.Line)
}

func allStacks() string {
	for size := 1 << 16; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}
