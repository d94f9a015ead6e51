package backend

import (
	"errors"
	"io"
	"syscall"
)

// Winsock's error numbers that the syscall package does not name.
const (
	wsaENetDown     = syscall.Errno(10050)
	wsaENetUnreach  = syscall.Errno(10051)
	wsaEConnRefused = syscall.Errno(10061)
	wsaEHostUnreach = syscall.Errno(10065)
)

func isRefused(err error) bool { return errors.Is(err, wsaEConnRefused) }

func isUnreachable(err error) bool {
	return errors.Is(err, wsaENetUnreach) || errors.Is(err, wsaEHostUnreach) || errors.Is(err, wsaENetDown)
}

func isReset(err error) bool {
	return errors.Is(err, syscall.WSAECONNRESET) || errors.Is(err, syscall.WSAECONNABORTED) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
