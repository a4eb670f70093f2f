// Command waits does nothing until its stdin ends. It is for compilers other than Go's own, so it needs nothing of
// this module.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	fmt.Println("READY")
	io.Copy(io.Discard, os.Stdin)
}
