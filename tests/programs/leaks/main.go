// Command leaks serves requests that leave a goroutine behind in one of the ways in which servers do, or, with -twin, do the
// same as it should be done. It tells its `go` statement, by the runtime's own word, and goes on until it is told to quit.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"time"

	"gotracer.test/programs/report"
)

var (
	kind  *string
	twin  = flag.Bool("twin", false, "do it as it should be done")
	rate  = flag.Int("rate", 20, "requests a second")
	every = flag.Int("every", 1, "of so many requests one leaks, the others do it as it should be done")
	noise = flag.Int("noise", 20, "goroutines a second that sleep for a moment, of all lengths up to 400 ms")
)

// A pattern handles one request; site is told where its `go` statement is.
type pattern struct {
	// Called once at the beginning, if there is something to set up.
	begin func(site *report.Site, leak bool)
	// Called for each request, in a goroutine of its own.
	request func(site *report.Site, leak bool)
	// Whether there is only the way in which it should be done.
	healthy bool
}

// Filled in at the start, for flag's text lists them.
var patterns map[string]pattern

func init() {
	patterns = allPatterns()
	kind = flag.String("kind", "", "what the requests do: "+strings.Join(names(), ", "))
}

func allPatterns() map[string]pattern {
	return map[string]pattern{
		"send":        {request: send},
		"receive":     {request: receive},
		"select":      {request: selects},
		"nil":         {request: nilChannel},
		"sleep":       {request: sleeps},
		"io":          {begin: listen, request: reads},
		"done":        {request: otherContext},
		"shared":      {request: sharedEvents},
		"group":       {request: group},
		"leftgroup":   {request: leftGroup},
		"ticker":      {request: ticker},
		"deferred":    {request: deferred},
		"mutex":       {request: lostLock},
		"held":        {begin: holdLock, request: heldLock},
		"cond":        {request: condition},
		"syscall":     {request: blockingRead},
		"busy":        {begin: spins},
		"storm":       {begin: storm},
		"finalizer":   {begin: finalizer},
		"accumulated": {begin: accumulated},

		"pool":         {begin: startPool, request: usePool, healthy: true},
		"keepalive":    {begin: startServer, request: useServer, healthy: true},
		"errgroup":     {request: errGroup, healthy: true},
		"singleflight": {request: singleFlight, healthy: true},
		"hub":          {begin: startHub, request: publish, healthy: true},
	}
}

func names() []string {
	var names []string
	for name := range patterns {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func main() {
	flag.Parse()
	chosen, found := patterns[*kind]
	if !found {
		fmt.Fprintf(os.Stderr, "no -kind %q; there are %s\n", *kind, strings.Join(names(), ", "))
		os.Exit(2)
	}
	site := report.New(0)
	leak := !*twin && !chosen.healthy
	if chosen.begin != nil {
		chosen.begin(site, leak)
	}
	if chosen.request != nil {
		chosen.request(site, leak)
	}
	go makeNoise()
	if chosen.request != nil {
		go serve(chosen.request, site, leak)
	}
	report.Ready(fmt.Sprintf(`{"function":%q,"file":%q,"line":%d}`, site.Function, site.File, site.Line))
	report.Await("quit")
}

// serve lets requests come at the rate asked for, whatever becomes of them.
func serve(request func(*report.Site, bool), site *report.Site, leak bool) {
	ticks := time.NewTicker(5 * time.Millisecond)
	begin := time.Now()
	// What a request says of its site is the same each time, and said already.
	ignored := report.New(0)
	for n := 0; ; {
		<-ticks.C
		for due := int(time.Since(begin).Seconds() * float64(*rate)); n < due; n++ {
			leaks := leak && n%*every == 0
			go handle(request, *ignored, leaks)
		}
	}
}

func handle(request func(*report.Site, bool), site report.Site, leak bool) {
	// As requests do, it takes a moment.
	time.Sleep(time.Duration(rand.Intn(10)) * time.Millisecond)
	request(&site, leak)
}

func makeNoise() {
	for *noise > 0 {
		time.Sleep(time.Duration(rand.Int63n(int64(2 * time.Second / time.Duration(*noise)))))
		for i := rand.Intn(3); i > 0; i-- {
			go moment()
		}
	}
}

func moment() { time.Sleep(time.Duration(rand.Intn(400)) * time.Millisecond) }
