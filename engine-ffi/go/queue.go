package oncekey

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

// call is one operation on its way through the queue.
type call struct {
	submission C.oncekey_go_submission
	scope, key string
	data       []byte
	parts      Fingerprint // with ONCEKEY_FINGERPRINT_PARTS
	result     completion
	done       chan struct{}
	// number is the user data of the submission. No other call that is in progress, or was until a moment ago,
	// has it.
	number uint64
	// settled is set once: by the poller when it has the result, or by a caller that stops waiting.
	settled atomic.Bool
}

var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func newCall(op C.uint32_t) *call {
	c := calls.Get().(*call)
	c.settled.Store(false)
	c.submission = C.oncekey_go_submission{op: op}
	return c
}

// free returns a call whose result was taken to the pool.
func (c *call) free() {
	c.forget()
	calls.Put(c)
}

// forget drops the references to the caller's memory, after the call is packed.
func (c *call) forget() {
	c.scope, c.key, c.data = "", "", nil
	if c.parts.count > 0 {
		c.parts = Fingerprint{}
	}
}

// queue brings calls to the engine and results back. One goroutine submits whole batches. Another one polls;
// it alone holds a thread while there is nothing to do.
type queue struct {
	handle C.oncekey_queue

	mu      sync.Mutex
	waiting *batch // to be submitted
	kick    chan struct{}
	slots   []*call // calls in progress, by the lower half of their number
	vacant  []uint32
	count   uint32 // the upper half of the last number
	live    int    // accepted by do and not settled by the poller
	closed  bool
	failed  error      // set when the poller failed: no call is accepted any more
	idle    *sync.Cond // live became 0

	poll source

	stopped sync.WaitGroup
	stop    atomic.Bool
}

// completion is the result of a call, from C.
type completion = C.oncekey_completion

// source waits for completions and fills them in from the front. It returns their number and a status.
type source func(q *queue, into []completion) (int, Kind)

func pollC(q *queue, into []completion) (int, Kind) {
	var count C.size_t
	status := C.oncekey_queue_poll(q.handle, &into[0], C.size_t(len(into)), C.UINT64_MAX, &count, nil)
	return int(count), Kind(status)
}

func newQueue(engine C.oncekey_engine, poll source) (*queue, error) {
	q := &queue{kick: make(chan struct{}, 1), waiting: new(batch), poll: poll}
	q.idle = sync.NewCond(&q.mu)
	var detail C.oncekey_error
	if status := C.oncekey_queue_new(engine, 0, &q.handle, &detail); status != C.ONCEKEY_OK {
		return nil, failure(status, detail)
	}
	q.stopped.Add(2)
	go q.submitAll()
	go q.pollAll()
	return q, nil
}

// do submits a call and waits for its result, which is in the call when the error is nil. A call that is not
// accepted is never submitted. When the context ends first, the call continues without its caller and belongs
// to the queue; the wait of a begin for an owner is cancelled.
func (q *queue) do(ctx context.Context, c *call) (accepted bool, err error) {
	q.mu.Lock()
	err = q.failed
	if q.closed {
		err = &Error{Kind: ErrClosed}
	}
	if err != nil {
		q.mu.Unlock()
		q.refuse(c)
		return false, err
	}
	q.push(c)
	q.mu.Unlock()
	ended := ctx.Done()
	if ended == nil {
		<-c.done
		return true, nil
	}
	select {
	case <-c.done:
		return true, nil
	case <-ended:
		if c.settled.CompareAndSwap(false, true) {
			if c.submission.max_wait_ms > 0 {
				q.cancel(c)
			}
			return true, context.Cause(ctx)
		}
		<-c.done
		return true, nil
	}
}

// push hands a call to the submitting goroutine. The lock is held: the kick channel is closed when no call is
// live.
func (q *queue) push(c *call) {
	q.live++
	q.waiting.add(c, q.slot(c))
	c.forget()
	q.wake()
}

// wake wakes the submitting goroutine after the first addition to a batch. The lock is held.
func (q *queue) wake() {
	if len(q.waiting.submissions)+len(q.waiting.cancels) == 1 {
		select {
		case q.kick <- struct{}{}:
		default:
		}
	}
}

// cancel cancels a call without a waiting caller, unless it is over. A call that is not over keeps the queue
// live.
func (q *queue) cancel(c *call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.slots[uint32(c.number)] == c {
		q.waiting.cancels = append(q.waiting.cancels, C.uint64_t(c.number))
		q.wake()
	}
}

// refuse undoes a call that is not submitted.
func (q *queue) refuse(c *call) {
	if c.submission.flags&C.ONCEKEY_FREE_FINGERPRINT != 0 {
		C.oncekey_fingerprint_free(C.oncekey_fingerprint{id: c.submission.fingerprint})
	}
	c.free()
}

func (q *queue) submitAll() {
	defer q.stopped.Done()
	spare := new(batch)
	for range q.kick {
		// Let goroutines that are ready to run add their calls first: one call of C then takes all of them.
		runtime.Gosched()
		q.mu.Lock()
		full := q.waiting
		q.waiting = spare
		q.mu.Unlock()
		q.submit(full)
		full.clear()
		spare = full
	}
}

// slot gives a call its number. The lock is held.
func (q *queue) slot(c *call) uint64 {
	var slot uint32
	if n := len(q.vacant); n > 0 {
		slot = q.vacant[n-1]
		q.vacant = q.vacant[:n-1]
		q.slots[slot] = c
	} else {
		slot = uint32(len(q.slots))
		q.slots = append(q.slots, c)
	}
	q.count++
	c.number = uint64(q.count)<<32 | uint64(slot)
	return c.number
}

func (q *queue) submit(b *batch) {
	b.seal()
	for rest := b.submissions; len(rest) > 0; {
		var taken, accepted C.size_t
		status := C.oncekey_go_submit(q.handle, &rest[0], C.size_t(len(rest)),
			(*C.uint8_t)(unsafe.Pointer(&b.bytes[0])), &b.lengths[0], &taken, &accepted)
		rest = rest[accepted:]
		if status == C.ONCEKEY_OK && accepted > 0 || len(rest) == 0 {
			continue
		}
		// Either this begin exceeds the bound, or the library contained a bug and refused everything.
		refused := &rest[0]
		q.mu.Lock()
		c := q.take(refused.user_data)
		q.mu.Unlock()
		if status == C.ONCEKEY_OK {
			status = C.ONCEKEY_UNKNOWN_ERROR
		}
		if c != nil {
			q.deliver(c, &completion{status: status})
			q.settled(1)
		}
		if refused.flags&C.ONCEKEY_FREE_FINGERPRINT != 0 {
			C.oncekey_fingerprint_free(C.oncekey_fingerprint{id: refused.fingerprint})
		}
		rest = rest[1:]
	}
	// A cancelled call was added before its cancellation, to this batch or to an earlier one.
	for _, number := range b.cancels {
		C.oncekey_queue_cancel(q.handle, number)
	}
}

func (q *queue) pollAll() {
	defer q.stopped.Done()
	const capacity = 1024
	// Memory of C, so that cgo need not search it for pointers of Go at every call.
	memory := C.calloc(capacity, C.sizeof_oncekey_completion)
	defer C.free(memory)
	completions := unsafe.Slice((*completion)(memory), capacity)
	var done []*call
	for !q.stop.Load() {
		count, status := q.poll(q, completions)
		if status != C.ONCEKEY_OK {
			q.fail(status)
			return
		}
		done = done[:0]
		q.mu.Lock()
		for i := range completions[:count] {
			done = append(done, q.take(completions[i].user_data))
		}
		q.mu.Unlock()
		over := 0
		for i, c := range done {
			if c == nil {
				q.giveBack(&completions[i])
				continue
			}
			q.deliver(c, &completions[i])
			over++
		}
		q.settled(over)
		clear(done)
	}
}

// fail answers every call in progress, and refuses later ones, when nothing can be polled any more. The
// outcome of the calls is unknown: the failed poll may have lost their completions.
func (q *queue) fail(status Kind) {
	q.mu.Lock()
	q.failed = &Error{Kind: ErrUnavailable, Message: "unavailable: polling for completions failed with " + status.name()}
	var lost []*call
	for _, c := range q.slots {
		if c != nil {
			lost = append(lost, q.take(C.uint64_t(c.number)))
		}
	}
	q.mu.Unlock()
	// The free aborts claims that were won and not received.
	C.oncekey_queue_free(q.handle)
	for _, c := range lost {
		q.deliver(c, &completion{status: C.ONCEKEY_OUTCOME_UNKNOWN})
	}
	q.settled(len(lost))
}

// take frees the number of a call and returns the call; nil when no call has the number now. The lock is
// held.
func (q *queue) take(number C.uint64_t) *call {
	slot := uint32(number)
	if uint64(slot) >= uint64(len(q.slots)) {
		return nil
	}
	c := q.slots[slot]
	if c == nil || c.number != uint64(number) {
		return nil
	}
	q.slots[slot] = nil
	q.vacant = append(q.vacant, slot)
	return c
}

// settled subtracts calls that are over.
func (q *queue) settled(count int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.live -= count
	if q.live == 0 {
		q.idle.Broadcast()
	}
}

// deliver hands a result to the waiting caller. Without one, deliver frees the contents of the result.
func (q *queue) deliver(c *call, result *completion) {
	if c.settled.CompareAndSwap(false, true) {
		c.result = *result
		c.done <- struct{}{}
		return
	}
	q.giveBack(result)
	// The caller has already been told to forget the handle, so free a handle that the failed call did not
	// consume.
	if result.status != C.ONCEKEY_OK && c.submission.op != C.ONCEKEY_OP_CHECKPOINT {
		C.oncekey_claim_free(C.oncekey_claim{id: c.submission.claim})
		C.oncekey_orphan_free(C.oncekey_orphan{id: c.submission.orphan})
	}
}

// giveBack frees the contents of a result that no caller receives.
func (q *queue) giveBack(result *completion) {
	if result.answer.claim.id != 0 {
		q.abort(result.answer.claim)
	}
	C.oncekey_error_free(result.error)
	C.oncekey_buffer_free(&result.answer.data)
	C.oncekey_orphan_free(result.answer.orphan)
}

// abort aborts a claim that was won and not received.
func (q *queue) abort(claim C.oncekey_claim) {
	c := newCall(C.ONCEKEY_OP_ABORT)
	c.submission.claim = claim.id
	c.settled.Store(true)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed != nil {
		c.free()
		go C.oncekey_claim_abort(claim, nil)
		return
	}
	q.push(c)
}

// shut refuses further calls, waits for the calls in progress, and stops the goroutines. The engine is closed
// by then, so every call gets an answer.
func (q *queue) shut() {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return
	}
	q.closed = true
	for q.live > 0 {
		q.idle.Wait()
	}
	q.mu.Unlock()
	close(q.kick)
	q.stop.Store(true)
	C.oncekey_queue_wake(q.handle)
	q.stopped.Wait()
	C.oncekey_queue_free(q.handle)
}
