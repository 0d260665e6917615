package oncekey

// #include <oncekey.h>
import "C"

import (
	"runtime"
	"time"
	"unsafe"
)

// Durability says when Begin may report a claim as granted.
type Durability uint32

const (
	// Strict, the default: every answer that confirms a change waits until the change is synced to disk.
	Strict Durability = C.ONCEKEY_STRICT
	// Relaxed: Begin grants a claim once it is written, before it is synced. The claim survives kill -9; after a
	// power loss an operation may run twice.
	Relaxed Durability = C.ONCEKEY_RELAXED
)

// Options of a store. Zero values mean the defaults. An option that this kind of store does not have is
// refused, and the error names it.
type Options struct {
	// Existing refuses to create a store.
	Existing bool
	// Durability decides which sync Begin waits for.
	Durability Durability
	// TTL is how long a completed response is replayed and an orphan is kept. Default 24 hours.
	TTL time.Duration
	// MaxExecution is the age at which a claim counts as an orphan although its owner lives. Default never.
	MaxExecution time.Duration
	// MaxResponse: the longest response that is kept, in bytes. Default 1 MiB, at most 16 MiB.
	MaxResponse int
	// MaxCheckpoint: the longest checkpoint, in bytes. Default 64 KiB, at most 16 MiB.
	MaxCheckpoint int
	// MaxInFlight: the largest number of claims in flight. Default 65,536.
	MaxInFlight int
	// MaxOrphans: the largest number of unresolved orphans. Default 1,000,000.
	MaxOrphans int
	// MaxQueue: the largest number of begins that wait for the disk. Default 65,536.
	MaxQueue int
	// MaxWaiters: the largest number of begins that wait for an owner. Default 65,536.
	MaxWaiters int
	// MaxStoreBytes: the largest size of the store, in bytes. Default no bound.
	MaxStoreBytes int64
	// OverloadAfter: how long a begin waits for memory before it is refused. Default 5 seconds.
	OverloadAfter time.Duration
	// RecentBytes: memory for records that are not folded yet, in bytes. Default 32 MiB.
	RecentBytes int
	// CacheBytes: memory for cached records and blocks, in bytes. Default 64 MiB; for a shared store 16 MiB.
	CacheBytes int
	// SegmentBytes: the size of a full journal segment, in bytes, a multiple of 4096. Default 32 MiB.
	SegmentBytes int64
	// SweepInterval: the time between two sweeps of expired records, and between two upkeeps of a shared store.
	// Default 60 seconds.
	SweepInterval time.Duration
	// MaxClockGap: how far the wall clock may be ahead of the store's last time. Default 30 days.
	MaxClockGap time.Duration
	// MaxOpenFiles: the largest number of open record files. Default 256, at least 8.
	MaxOpenFiles int
	// MaxOpenBytes: the largest size of claims in flight and orphans together, checkpoints included. Default 8
	// GiB.
	MaxOpenBytes int64
	// BackupBytesPerSecond: the speed at which a backup verifies and copies. Default 48 MiB; math.MaxInt64 is as
	// fast as the disk allows.
	BackupBytesPerSecond int64
	// LockWait: how long an open waits for a store that another process holds. Default 0: not at all.
	LockWait time.Duration
	// AcceptClockJump: open although the wall clock is ahead by more than MaxClockGap, or the clock of a shared
	// server by more than 30 days.
	AcceptClockJump bool
	// AllowNetworkFilesystem: open a store on a network filesystem.
	AllowNetworkFilesystem bool

	// For a shared store only:

	// Lease: how long a renewal keeps this engine counted as living. After its death, its claims may become
	// orphans when this time has passed. Default 15 seconds, 1 second to 10 minutes.
	Lease time.Duration
	// SettleFor: how long the end of a claim is retried while the server does not answer. Default 30 seconds.
	SettleFor time.Duration
	// Schema: the schema that holds the tables. Default oncekey.
	Schema string
	// InstanceName: a name that no other living engine has, such as the name of a pod. An engine that opens
	// under the name of its predecessor ends that engine, and its claims are orphans at once. Default none.
	InstanceName string
	// RootCertificates: the certificates (PEM) that are trusted instead of those of the system.
	RootCertificates string
	// ReplicationRequired: refuse a server without synchronous_standby_names.
	ReplicationRequired bool
	// AcceptLostHistory: continue when the server lacks changes that it had acknowledged. Keys whose claim or
	// response was lost are then new, and their operations run again.
	AcceptLostHistory bool
	// WithoutStartupOptions: send no settings when a connection begins, for a pooler that refuses them. The role
	// must then have these settings.
	WithoutStartupOptions bool
}

// toC lends strings of the options to C until the pinner is unpinned.
func (o *Options) toC(pinner *runtime.Pinner) (C.oncekey_options, error) {
	var c C.oncekey_options
	c.size = C.uint32_t(unsafe.Sizeof(c))
	if o == nil {
		return c, nil
	}
	flags := map[C.uint32_t]bool{
		C.ONCEKEY_OPEN_EXISTING:            o.Existing,
		C.ONCEKEY_ACCEPT_CLOCK_JUMP:        o.AcceptClockJump,
		C.ONCEKEY_ALLOW_NETWORK_FILESYSTEM: o.AllowNetworkFilesystem,
		C.ONCEKEY_REPLICATION_REQUIRED:     o.ReplicationRequired,
		C.ONCEKEY_ACCEPT_LOST_HISTORY:      o.AcceptLostHistory,
		C.ONCEKEY_WITHOUT_STARTUP_OPTIONS:  o.WithoutStartupOptions,
	}
	for flag, set := range flags {
		if set {
			c.flags |= flag
		}
	}
	c.durability = C.uint32_t(o.Durability)
	for _, of := range []struct {
		name  string
		value time.Duration
		field *C.uint64_t
	}{
		{"TTL", o.TTL, &c.ttl_ms},
		{"MaxExecution", o.MaxExecution, &c.max_execution_ms},
		{"OverloadAfter", o.OverloadAfter, &c.overload_after_ms},
		{"SweepInterval", o.SweepInterval, &c.sweep_interval_ms},
		{"MaxClockGap", o.MaxClockGap, &c.max_clock_gap_ms},
		{"LockWait", o.LockWait, &c.lock_wait_ms},
		{"Lease", o.Lease, &c.lease_ms},
		{"SettleFor", o.SettleFor, &c.settle_for_ms},
	} {
		if of.value < 0 || of.value > 0 && of.value < time.Millisecond {
			return c, invalid("%s is %s, at least 1ms is allowed", of.name, of.value)
		}
		*of.field = C.uint64_t(of.value.Milliseconds())
	}
	for _, of := range []struct {
		name  string
		value int64
		field *C.uint64_t
	}{
		{"MaxResponse", int64(o.MaxResponse), &c.max_response},
		{"MaxCheckpoint", int64(o.MaxCheckpoint), &c.max_checkpoint},
		{"MaxInFlight", int64(o.MaxInFlight), &c.max_in_flight},
		{"MaxOrphans", int64(o.MaxOrphans), &c.max_orphans},
		{"MaxQueue", int64(o.MaxQueue), &c.max_queue},
		{"MaxWaiters", int64(o.MaxWaiters), &c.max_waiters},
		{"MaxStoreBytes", o.MaxStoreBytes, &c.max_store_bytes},
		{"MaxOpenFiles", int64(o.MaxOpenFiles), &c.max_open_files},
		{"MaxOpenBytes", o.MaxOpenBytes, &c.max_open_bytes},
		{"BackupBytesPerSecond", o.BackupBytesPerSecond, &c.backup_bytes_per_second},
		{"RecentBytes", int64(o.RecentBytes), &c.recent_bytes},
		{"CacheBytes", int64(o.CacheBytes), &c.cache_bytes},
		{"SegmentBytes", o.SegmentBytes, &c.segment_bytes},
	} {
		if of.value < 0 {
			return c, invalid("%s is %d, at least 0 is allowed", of.name, of.value)
		}
		*of.field = C.uint64_t(of.value)
	}
	c.schema = slice(o.Schema, pinner)
	c.instance_name = slice(o.InstanceName, pinner)
	c.root_certificates = slice(o.RootCertificates, pinner)
	return c, nil
}
