// A program whose goroutines stand still, for a recording of its memory.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

func wait(c chan int) { <-c }

func recurse(n int, c chan int) {
	if n == 0 {
		<-c
	}
	recurse(n-1, c)
}

func main() {
	c := make(chan int)
	for i := 0; i < 20; i++ {
		go wait(c)
		go wait(make(chan int))
	}
	go recurse(3000, c)
	go func() {
		defer func() { <-c }()
		panic("held")
	}()
	go pprof.Do(context.Background(), pprof.Labels("a", "1", "b", "2"), func(context.Context) { <-c })
	go time.Sleep(time.Hour)
	go func() {
		select {
		case <-c:
		case <-make(chan int):
		case <-time.After(time.Hour):
		}
	}()
	// All but main wait when nothing else can run.
	for i := 0; i < 100; i++ {
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	runtime.GC()
	fmt.Println("READY")
	io.ReadAll(os.Stdin)
}
