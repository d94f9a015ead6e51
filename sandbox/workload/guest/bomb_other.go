//go:build !linux

package main

import (
	"context"
	"errors"
	"time"
)

// Rentals run on Linux; elsewhere the program has none of this.

func bomb(context.Context, string, int, string) string { return "not here" }

func tryAll(int, string) map[string]string { return map[string]string{} }

func escape(string) error { return errors.ErrUnsupported }

func ping(string, time.Duration) error { return errors.ErrUnsupported }
