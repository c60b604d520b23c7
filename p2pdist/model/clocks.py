"""What may be concluded from the wall clock of another host: little.

Ages are measured on the receiver's monotonic clock, from when it heard a thing. Stamps order what
one signer says, and expire it with this tolerance.
"""

from __future__ import annotations

from typing import Final

# Hosts with a time service are milliseconds apart, those without one drift by a second a day. What
# is off by more was never set: as Kerberos has it (RFC 4120, section 1.6: "typically 5 minutes").
CLOCK_TOLERANCE_S: Final = 300
