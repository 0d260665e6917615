package oncekey_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

func Example() {
	directory, err := os.MkdirTemp("", "oncekey-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	engine, err := oncekey.Open(directory, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	key := oncekey.Key{Scope: "tenant-7", Key: "order-4711"}
	request := oncekey.Fingerprint{}.Part("method", "POST").Part("body", "2 apples")
	for range 2 {
		found, err := engine.Begin(context.Background(), key, request)
		if err != nil {
			log.Fatal(err)
		}
		switch found := found.(type) {
		case *oncekey.Claim:
			fmt.Println("executing attempt", found.Attempt)
			if _, err := found.Complete(context.Background(), []byte("201 created")); err != nil {
				log.Fatal(err)
			}
		case *oncekey.Recorded:
			fmt.Printf("again: %s\n", found.Response)
		}
	}
	// Output:
	// executing attempt 1
	// again: 201 created
}

func ExampleOrphan() {
	directory, err := os.MkdirTemp("", "oncekey-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	engine, err := oncekey.Open(directory, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	ctx := context.Background()
	claimed, err := engine.Begin(ctx, oncekey.Key{Key: "transfer"}, oncekey.Fingerprint{})
	if err != nil {
		log.Fatal(err)
	}
	claim := claimed.(*oncekey.Claim)
	claim.SaveCheckpoint(ctx, []byte("money taken"))
	claim.Close() // the owner gives up without saying how it ended

	found, err := engine.Begin(ctx, claim.Key, oncekey.Fingerprint{})
	if err != nil {
		log.Fatal(err)
	}
	orphan := found.(*oncekey.Orphan) // engine.Orphans gives all of them
	saved, err := orphan.Checkpoint()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: attempt %d died after %q\n", orphan.Key.Key, orphan.Attempt, saved)
	if _, err := orphan.Complete(ctx, []byte("money given")); errors.Is(err, oncekey.ErrFenced) {
		fmt.Println("another caller resolved it")
	}
	// Output: transfer: attempt 1 died after "money taken"
}

func ExampleEngine_ControlSocket() {
	directory, err := os.MkdirTemp("", "oncekey-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	engine, err := oncekey.Open(directory, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	// From here on `oncekey stats --store DIRECTORY` and the other commands ask this process.
	if err := engine.ControlSocket(nil); err != nil {
		log.Fatal(err)
	}
	fmt.Println("operators may ask")
	// Output: operators may ask
}
