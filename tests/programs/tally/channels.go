package main

import "gotracer.test/programs/report"

// One shape of `go` statement each, and one way to wait on channels.

//go:noinline
func receive(site *report.Site, c chan int) {
	site.Enter()
	for i := 0; i < *rounds; i++ {
		<-c
	}
	site.Leave()
}

// A call with arguments, which the compiler wraps in a function of its own.
func plainFunction() *report.Site {
	site, list := report.New(*workers), channels(0)
	for _, c := range list {
		site.Next()
		go receive(site, c)
	}
	release(site, "main.receive", func(worker, _ int) { list[worker] <- 0 })
	return site
}

// A function literal over several lines.
func closure() *report.Site {
	site, list := report.New(*workers), channels(0)
	for _, c := range list {
		c := c
		site.Next()
		go func() {
			site.Enter()
			for i := 0; i < *rounds; i++ {
				c <- i
			}
			site.Leave()
		}()
	}
	release(site, "main.closure.func1", func(worker, _ int) { <-list[worker] })
	return site
}

type selecter struct {
	site      *report.Site
	never, in chan int
}

//go:noinline
func (s *selecter) run() {
	s.site.Enter()
	for i := 0; i < *rounds; i++ {
		select {
		case <-s.never:
		case <-s.in:
		}
	}
	s.site.Leave()
}

// A method bound to its receiver before the `go`.
func methodValue() *report.Site {
	site, list := report.New(*workers), channels(0)
	for _, c := range list {
		run := (&selecter{site, make(chan int), c}).run
		site.Next()
		go run()
	}
	release(site, "main.(*selecter).run", func(worker, _ int) { list[worker] <- 0 })
	return site
}

type runner interface{ run() }

type bufferedSender struct {
	site *report.Site
	out  chan int
}

//go:noinline
func (b *bufferedSender) run() {
	b.site.Enter()
	for i := 0; i < *rounds; i++ {
		// Full from the start: main takes one, and this one takes its place.
		b.out <- i
	}
	b.site.Leave()
}

// A method called through an interface.
func interfaceMethod() *report.Site {
	site, list := report.New(*workers), channels(1)
	for _, c := range list {
		c <- -1
		var r runner = &bufferedSender{site, c}
		site.Next()
		go r.run()
	}
	release(site, "main.(*bufferedSender).run", func(worker, _ int) { <-list[worker] })
	return site
}

//go:noinline
func drain(site *report.Site, c chan int) {
	site.Enter()
	for range c {
	}
	site.Leave()
}

// A `go` statement in a deferred function; and woken by a close at the end.
func deferred() *report.Site {
	site, list := report.New(*workers), channels(0)
	for _, c := range list {
		startDeferred(site, c)
	}
	release(site, "main.drain", func(worker, round int) {
		if round == *rounds-1 {
			close(list[worker])
		} else {
			list[worker] <- 0
		}
	})
	return site
}

func startDeferred(site *report.Site, c chan int) {
	defer func() {
		site.Next()
		go drain(site, c)
	}()
}

//go:noinline
func receiveGeneric[T any](site *report.Site, c chan T) {
	site.Enter()
	for i := 0; i < *rounds; i++ {
		<-c
	}
	site.Leave()
}

func genericFunction() *report.Site {
	site, list := report.New(*workers), channels(0)
	for _, c := range list {
		site.Next()
		go receiveGeneric(site, c)
	}
	release(site, "main.receiveGeneric[...]", func(worker, _ int) { list[worker] <- 0 })
	return site
}

//go:noinline
func receiveGrandchild(site *report.Site, c chan int) {
	site.Enter()
	for i := 0; i < *rounds; i++ {
		<-c
	}
	site.Leave()
}

// A goroutine that ends while those it started live on.
func grandchildren() []*report.Site {
	child, grandchild, list := report.New(1), report.New(*workers), channels(0)
	child.Next()
	go func() {
		child.Enter()
		for _, c := range list {
			grandchild.Next()
			go receiveGrandchild(grandchild, c)
		}
		child.Leave()
	}()
	release(grandchild, "main.receiveGrandchild", func(worker, _ int) { list[worker] <- 0 })
	return []*report.Site{child, grandchild}
}

//go:noinline
func selectForever(site *report.Site) {
	site.Enter()
	select {}
}

func emptySelect() *report.Site {
	site := report.New(*workers)
	for i := 0; i < *workers; i++ {
		site.Next()
		go selectForever(site)
	}
	site.AwaitParked(*workers, "main.selectForever")
	return site
}

//go:noinline
func receiveNil(site *report.Site, c chan int) {
	site.Enter()
	<-c
}

func nilChannel() *report.Site {
	site := report.New(*workers)
	for i := 0; i < *workers; i++ {
		site.Next()
		go receiveNil(site, nil)
	}
	site.AwaitParked(*workers, "main.receiveNil")
	return site
}

func channels(size int) []chan int {
	list := make([]chan int, *workers)
	for i := range list {
		list[i] = make(chan int, size)
	}
	return list
}
