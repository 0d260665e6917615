// Command pairs begins and completes operations, with OUTSTANDING goroutines, and prints the number of pairs
// per second. Usage: pairs DIRECTORY OUTSTANDING SECONDS
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: pairs DIRECTORY OUTSTANDING SECONDS")
	}
	outstanding, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(os.Args[3], 64)
	if err != nil {
		log.Fatal(err)
	}
	engine, err := oncekey.Open(os.Args[1], nil)
	if err != nil {
		log.Fatal(err)
	}
	var number atomic.Uint64
	var group sync.WaitGroup
	started := time.Now()
	end := started.Add(time.Duration(seconds * float64(time.Second)))
	for range outstanding {
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Now().Before(end) {
				if err := pair(engine, number.Add(1)); err != nil {
					log.Fatal(err)
				}
			}
		}()
	}
	group.Wait()
	fmt.Printf("%.0f\n", float64(number.Load())/time.Since(started).Seconds())
	if err := engine.Close(); err != nil {
		log.Fatal(err)
	}
}

var response = make([]byte, 1024)

func pair(engine *oncekey.Engine, number uint64) error {
	key := oncekey.Key{Scope: "tenant-0042", Key: fmt.Sprintf("key-%032d", number)}
	fingerprint := oncekey.Fingerprint{}.
		Part("method", "POST").
		Part("target", "/api/v2/orders").
		Part("header authorization", "Bearer 0123456789").
		Part("header content-type", "application/json").
		Part("body", `{"customerId":"c-1"}`)
	found, err := engine.Begin(context.Background(), key, fingerprint)
	if err != nil {
		return err
	}
	_, err = found.(*oncekey.Claim).Complete(context.Background(), response)
	return err
}
