//go:build go1.23

package main

import "iter"

func init() {
	more = append(more, maker{"coroutine", func() {
		c := wait("coroutine")
		next, _ := iter.Pull(func(yield func(int) bool) {
			yield(1)
			close(c)
		})
		next()
		closures = append(closures, func() { next() })
	}})
}
