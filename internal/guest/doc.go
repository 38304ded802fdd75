// Package guest boots real kernels in QEMU, so that tests see Linux 6.1 and
// 6.12 with everything that the machine they run on may refuse: kprobes,
// fentry, LSM hooks, modules, panics.
//
// The kernels are Debian's own, fetched by apt-get download and unpacked into
// a cache ($SKEP_GUEST_CACHE, or skep/guest in the user's cache directory),
// never installed. A guest is the kernel, an initramfs in memory with busybox
// and the running test binary, and one virtio port. The test binary is its own
// init: started as process 1 it becomes the agent that runs commands, which is
// why nothing has to be built for a guest.
//
// It is for tests only: no room of the product may import it, and it imports
// none of them. Start reading at [Each] and [Boot].
package guest
