// Command drive drives the package for clients/test/check.py, which describes the modes.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/oncekey/oncekey/engine-ffi/go/oncekeyclient"
)

func main() {
	log.SetFlags(0)
	var err error
	switch arguments := os.Args[1:]; arguments[0] {
	case "cases":
		err = cases()
	case "stream":
		_, err = post(&oncekeyclient.Transport{}, arguments[1], oncekeyclient.NewKey(), io.MultiReader(strings.NewReader("x")))
	case "orders":
		err = orders(arguments[1], arguments[2], arguments[3])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// post returns the body of the final answer.
func post(transport http.RoundTripper, url, key string, body io.Reader) ([]byte, error) {
	request, err := http.NewRequest("POST", url, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Idempotency-Key", key)
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

func cases() error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var c struct {
			URL, Key, Body string
			TryTimeout     float64
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		if c.Key == "" {
			c.Key = oncekeyclient.NewKey()
		}
		clock, waits := time.Unix(1.7e9, 0), []float64{}
		transport := &oncekeyclient.Transport{
			Policy: oncekeyclient.Policy{TryTimeout: time.Duration(c.TryTimeout * float64(time.Second))},
			Now:    func() time.Time { return clock },
			Sleep: func(_ context.Context, pause time.Duration) error {
				clock = clock.Add(pause)
				waits = append(waits, float64(pause)/float64(time.Millisecond))
				return nil
			},
		}
		result := "done"
		if _, err := post(transport, c.URL, c.Key, strings.NewReader(c.Body)); err != nil {
			var stopped *oncekeyclient.Stopped
			if !errors.As(err, &stopped) {
				return err
			}
			result = string(stopped.Why)
		}
		line, err := json.Marshal(map[string]any{"result": result, "waitsMs": waits, "key": c.Key})
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return lines.Err()
}

func orders(url, directory, count string) error {
	transport := &oncekeyclient.Transport{Policy: oncekeyclient.Policy{Backoff: 2 * time.Millisecond}}
	total, err := strconv.Atoi(count)
	for n := 0; n < total && err == nil; n++ {
		file := func(kind string) string { return filepath.Join(directory, fmt.Sprintf("%d.%s", n, kind)) }
		if _, err := os.Stat(file("done")); err == nil {
			continue
		}
		if _, err := os.Stat(file("key")); err != nil {
			if err := save(file("key"), []byte(oncekeyclient.NewKey())); err != nil {
				return err
			}
		}
		key, body := "", []byte(nil)
		if stored, failed := os.ReadFile(file("key")); failed == nil {
			key = string(stored)
		}
		if body, err = os.ReadFile(file("body")); err != nil {
			return err
		}
		answer, failed := post(transport, url, key, strings.NewReader(string(body)))
		if failed != nil {
			return failed
		}
		if err = save(file("done"), answer); err == nil {
			fmt.Println(n)
		}
	}
	return err
}

// save writes a file so that it is complete or absent.
func save(path string, data []byte) error {
	part, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer part.Close()
	if _, err := part.Write(data); err != nil {
		return err
	}
	if err := part.Sync(); err != nil {
		return err
	}
	return os.Rename(part.Name(), path)
}
