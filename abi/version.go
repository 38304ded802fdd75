package abi

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is a kernel release: major in the high byte, minor in the low one.
// Zero means unknown where a fact has a version, and precedes all others.
type Version uint16

// The kernels whose rules and tables skep knows in full.
const (
	Linux6_1  Version = 6<<8 | 1
	Linux6_12 Version = 6<<8 | 12
	Linux6_18 Version = 6<<8 | 18
)

// MakeVersion returns the release major.minor.
func MakeVersion(major, minor uint8) Version { return Version(major)<<8 | Version(minor) }

// Major returns the first number.
func (v Version) Major() int { return int(v >> 8) }

// Minor returns the second number.
func (v Version) Minor() int { return int(v & 0xff) }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }

// ParseVersion reads the first two numbers of a release as uname prints it,
// "6.12.117+deb12-cloud-amd64".
func ParseVersion(release string) (Version, error) {
	major, rest, ok := strings.Cut(release, ".")
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	a, err1 := strconv.ParseUint(major, 10, 8)
	b, err2 := strconv.ParseUint(rest[:end], 10, 8)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is not a kernel release like 6.12", release)
	}
	return MakeVersion(uint8(a), uint8(b)), nil
}
