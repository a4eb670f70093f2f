//go:build !go1.23

package main

import "fmt"

// iter came with Go 1.23.
func work() {
	fmt.Println(`TALLY {"unsupported":true}`)
}
