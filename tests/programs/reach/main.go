// Command reach has goroutines that wait for good, in every way, beside twins that look the same and can still be reached, in
// every way. It knows which are which, and says so.
//
// The collector is off: what it would free or move stays as it is, so that each run says the same.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"gotracer.test/programs/report"
)

var n = flag.Int("n", 3, "goroutines of each kind")
var gc = flag.Bool("gc", false, "leave the collector on")

// Names and goids alone: nothing here leads to what a goroutine waits on.
type roll struct {
	mutex  sync.Mutex
	Leaked map[string][]uint64 `json:"leaked"`
	Live   map[string][]uint64 `json:"live"`
	Port   int                 `json:"port,omitempty"`
}

var rolled = roll{Leaked: map[string][]uint64{}, Live: map[string][]uint64{}}

type book map[string][]uint64

// here enters the calling goroutine, which is about to wait.
func (b book) here(kind string) {
	id := goid()
	rolled.mutex.Lock()
	b[kind] = append(b[kind], id)
	rolled.mutex.Unlock()
}

func goid() uint64 {
	var buffer [64]byte
	text := string(buffer[:runtime.Stack(buffer[:], false)])
	id, err := strconv.ParseUint(strings.Fields(text)[1], 10, 64)
	if err != nil {
		report.Fail("no goid in %q", text)
	}
	return id
}

// A maker starts goroutines; it runs on a stack of its own, which is gone before anybody looks.
type maker struct {
	name string
	make func()
}

func main() {
	flag.Parse()
	if !*gc {
		debug.SetGCPercent(-1)
	}
	makers := append(append([]maker{}, leaks()...), twins()...)
	makers = append(makers, versioned()...)
	makers = append(makers, foreign()...)
	for _, m := range makers {
		for i := 0; i < *n; i++ {
			done := make(chan bool)
			go func() {
				m.make()
				close(done)
			}()
			<-done
		}
	}
	makers = nil
	report.AwaitAllWait()
	text, err := json.Marshal(&rolled)
	if err != nil {
		report.Fail("%v", err)
	}
	report.Ready(string(text))
	report.Await("profile")
	fmt.Println("PROFILE", ownProfile())
	report.Await("quit")
}

// leakedByRuntime gives the goids that the runtime's own traceback says are leaked.
func leakedByRuntime() string {
	buffer := make([]byte, 8<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	ids := []string{}
	for _, line := range strings.Split(string(buffer), "\n") {
		if strings.HasPrefix(line, "goroutine ") && strings.Contains(line, "(leaked)") {
			ids = append(ids, strings.Fields(line)[1])
		}
	}
	fmt.Fprintln(os.Stderr, len(ids), "leaked by the runtime's own account")
	return "[" + strings.Join(ids, ",") + "]"
}
