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
	"sync"
	"time"

	"gotracer.test/programs/report"
)

var (
	kind  *string
	twin  = flag.Bool("twin", false, "do it as it should be done")
	rate  = flag.Int("rate", 20, "requests a second")
	every = flag.Int("every", 1, "of so many requests one leaks, the others do it as it should be done")
	count = flag.Int("count", 0, "serve so many requests when told to go, then tell their tally; 0: serve from the start, to the end")
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
	patterns := map[string]pattern{
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
	for name, more := range foreign() {
		patterns[name] = more
	}
	return patterns
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
		// Of what is tallied nothing is there before the first request.
		chosen.request(site, leak && *count == 0)
	}
	if *count > 0 {
		site.AwaitLeft(0)
	}
	go makeNoise()
	if chosen.request != nil && *count == 0 {
		go serve(chosen.request, leak)
	}
	report.Ready(fmt.Sprintf(`{"function":%q,"file":%q,"line":%d}`, site.Function, site.File, site.Line))
	if *count > 0 {
		report.Await("go")
		tally(site, serve(chosen.request, leak))
	}
	report.Await("quit")
}

// serve lets requests come at the rate asked for, whatever becomes of them; gives how many of them leaked once there were as
// many as asked for.
func serve(request func(*report.Site, bool), leak bool) (leaked int) {
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	var handlers sync.WaitGroup
	begin := time.Now()
	for n := 0; *count == 0 || n < *count; {
		<-ticks.C
		for due := int(time.Since(begin).Seconds() * float64(*rate)); n < due && (*count == 0 || n < *count); n++ {
			leaks := leak && n%*every == 0
			if leaks {
				leaked++
			}
			handlers.Add(1)
			go handle(request, leaks, &handlers)
		}
	}
	handlers.Wait()
	return leaked
}

func handle(request func(*report.Site, bool), leak bool, handlers *sync.WaitGroup) {
	defer handlers.Done()
	// As requests do, it takes a moment.
	time.Sleep(time.Duration(rand.Intn(10)) * time.Millisecond)
	// What a request says of its site is the same each time, and said already.
	request(report.New(0), leak)
}

// tally tells what became of the goroutines of patterns that start one for each request, when all have ended that will.
func tally(site *report.Site, leaked int) {
	site.AwaitLeft(leaked)
	site.Created, site.Exited, site.Blocked = int64(*count), int64(*count-leaked), -1
	report.Tally(site)
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
