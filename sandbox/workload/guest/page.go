package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"os"
	"strconv"
)

//go:embed page.html
var pageHTML string

// pages are the program's HTTP paths: / and /json tell the report, /echo sends back what it was
// sent, /calls tells which system calls get through, /attempts what else does, /reach which addresses are reached, /bomb takes
// more than was rented, /exit ends the program with a code, /allocate takes so many MiB of memory.
func pages() http.Handler {
	page := template.Must(template.New("page").Parse(pageHTML))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, look(r.Context()))
	})
	mux.HandleFunc("GET /json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(look(r.Context()))
	})
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(tryCalls())
	})
	mux.HandleFunc("GET /attempts", func(w http.ResponseWriter, r *http.Request) {
		pid, _ := strconv.Atoi(r.FormValue("pid"))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(tryAll(pid, r.FormValue("file")))
	})
	mux.HandleFunc("GET /reach", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(reachAll(r.Context(), r.URL.Query()["to"]))
	})
	mux.HandleFunc("/bomb", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		_, _ = io.WriteString(w, bomb(r.Context(), r.FormValue("kind"), n, r.FormValue("at")))
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("POST /sink", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, err)
	})
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.FormValue("code"))
		if err != nil || code < 0 || code > 255 {
			http.Error(w, "code takes a number from 0 to 255", http.StatusBadRequest)
			return
		}
		fmt.Printf("exiting with code %d as told\n", code)
		os.Exit(code)
	})
	mux.HandleFunc("/allocate", func(w http.ResponseWriter, r *http.Request) {
		mb, err := strconv.Atoi(r.FormValue("mb"))
		if err != nil || mb < 1 || mb > 1<<20 {
			http.Error(w, "mb takes a number from 1 to 1048576", http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "touched %d MiB\n", touch(mb))
	})
	return mux
}

// touch allocates memory and writes to every page of it: only then does it count.
func touch(mb int) int {
	held := make([][]byte, 0, mb)
	for range mb {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
	}
	return len(held)
}

// logged prints a line for every request, for those who read the container's logs.
func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("%s %s from %s\n", r.Method, r.URL.RequestURI(), r.RemoteAddr)
		next.ServeHTTP(w, r)
	})
}
