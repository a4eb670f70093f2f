// The program that tests/binaries.rs builds with every toolchain. Without arguments it prints READY and waits; with
// "symbolise" it reads addresses from standard input, one hexadecimal link-time address a line, and prints what the runtime
// itself makes of each: function, file and line of the innermost call, separated by tabs.
package main

import (
	"bufio"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"sync"
	"time"
)

var sink int

// The chain that must be told apart although all of it is one body: outer <- middle <- inner.
func inner(x int) {
	sink += x * 3 // INNER
}

func middle(x int) {
	inner(x + 1) // MIDDLE
}

//go:noinline
func outer(x int) {
	middle(x * 2) // OUTER
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

//go:noinline
func (p *pair[K, V]) set(k K, v V) {
	p.key, p.value = k, v
}

func symbolise(linked uintptr) {
	bias := reflect.ValueOf(outer).Pointer() - linked
	in := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		pc, err := strconv.ParseUint(in.Text(), 16, 64)
		if err != nil {
			panic(err)
		}
		// Callers takes what it is given for return addresses and looks one before.
		frame, _ := runtime.CallersFrames([]uintptr{uintptr(pc) + bias + 1}).Next()
		fmt.Fprintf(out, "%s\t%s\t%d\n", frame.Function, frame.File, frame.Line)
	}
}

func main() {
	outer(len(os.Args))
	(&pair[string, int]{}).set("a", 1)
	var mu sync.RWMutex
	cond := sync.NewCond(&mu)
	go func() { mu.Lock(); cond.Wait(); mu.Unlock() }()
	runtime.SetFinalizer(&pair[int, int]{}, func(*pair[int, int]) {})
	timer := time.AfterFunc(time.Hour, func() { sink++ })
	defer timer.Stop()
	if len(os.Args) == 3 && os.Args[1] == "symbolise" {
		linked, err := strconv.ParseUint(os.Args[2], 16, 64)
		if err != nil {
			panic(err)
		}
		symbolise(uintptr(linked))
		return
	}
	fmt.Println("READY")
	select {}
}
