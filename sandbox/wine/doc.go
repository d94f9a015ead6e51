// Package wine runs the Windows programs where there is no Windows: in Wine's own desktop, on a screen that
// nobody sees. It holds tests alone, and those only with the build tag wine: `make test-wine`.
//
// They are written for the Wine of Debian 12, version 8, and stand in for what that one lacks: prng_test.go
// for a library that every Go program needs, doorstop for a bug in named pipes. What Wine does not enforce,
// such as who may open a pipe, is not tested here.
package wine
