//go:build windows

// Command doorstop is the first client of a named pipe, and stays until its standard input ends.
//
// go-winio makes a first instance of a pipe that it never serves; it only keeps the name. Windows
// leads no client there. Wine 8 does, the first one, which then waits for ever. Doorstop is that one.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

func main() {
	name, err := windows.UTF16PtrFromString(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		_, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, 0, 0)
		if err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Println("in")
	io.Copy(io.Discard, os.Stdin)
}
