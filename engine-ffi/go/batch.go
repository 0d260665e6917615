package oncekey

// #include "shim.h"
import "C"

// batch holds submissions of goroutines. Each goroutine packs its own, and its memory is not read later.
type batch struct {
	submissions []C.oncekey_go_submission
	bytes       []byte
	lengths     []C.uint32_t
	cancels     []C.uint64_t // numbers of calls to cancel after the submissions are submitted
}

// maxKept is the capacity, in bytes, that a batch keeps for its next use.
const maxKept = 4 << 20

// add packs a call.
func (b *batch) add(c *call, number uint64) {
	submission := c.submission
	submission.user_data = C.uint64_t(number)
	submission.at = C.size_t(len(b.bytes))
	submission.scope_len = C.size_t(len(c.scope))
	submission.key_len = C.size_t(len(c.key))
	submission.data_len = C.size_t(len(c.data))
	b.bytes = append(b.bytes, c.scope...)
	b.bytes = append(b.bytes, c.key...)
	b.bytes = append(b.bytes, c.data...)
	if submission.flags&C.ONCEKEY_FINGERPRINT_PARTS != 0 {
		submission.lengths_at = C.size_t(len(b.lengths))
		submission.part_count = C.size_t(c.parts.count)
		for i := range c.parts.count {
			part := c.parts.part(i)
			b.lengths = append(b.lengths, C.uint32_t(len(part.label)), C.uint32_t(len(part.value)))
			b.bytes = append(b.bytes, part.label...)
			b.bytes = append(b.bytes, part.value...)
		}
	}
	b.submissions = append(b.submissions, submission)
}

// seal makes sure that bytes and lengths have an address, which C needs also when they are empty.
func (b *batch) seal() {
	b.bytes = append(b.bytes, 0)
	b.lengths = append(b.lengths, 0)
}

func (b *batch) clear() {
	b.submissions, b.lengths, b.cancels = b.submissions[:0], b.lengths[:0], b.cancels[:0]
	if cap(b.bytes) > maxKept {
		b.bytes = nil
	}
	b.bytes = b.bytes[:0]
}
