# SPDX-License-Identifier: Apache-2.0
"""Virtual machines that boot from the mount, as a hypervisor's host would have them: what they say is on their console.

The processor is emulated (TCG), so nothing is asked of the machine but patience.
"""

from pathlib import Path

import pytest

from tests.support.capabilities import GRUB, NETBOOT
from tests.support.mounting import Mount
from tests.support.processes import Process, Processes

pytestmark = [pytest.mark.e2e, pytest.mark.needs("qemu-system-x86_64")]

BOOT_SECONDS = 240
"""How long a boot may take on a machine that is busy; it takes fifteen by itself."""


def boot(processes: Processes, *words: str | Path, megabytes: int) -> Process:
    """Start a machine without a screen: with none, SeaBIOS writes what it and boot loaders print to the console."""
    return processes.start(
        [
            *("timeout", "--kill-after=5", str(BOOT_SECONDS), "qemu-system-x86_64", "-accel", "tcg"),
            *("-m", str(megabytes), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"),
            *("-serial", "stdio", "-monitor", "none", *words),
        ]
    )


@pytest.mark.needs("netboot")
def test_a_machine_boots_with_kernel_and_initrd_of_the_mount(mounted: Mount, processes: Processes) -> None:
    for name in ("linux", "initrd.gz"):
        mounted.run("cp", NETBOOT / name, ".")
    assert [str(mounted.image(name).type) for name in ("linux", "initrd.gz")] == ["kernel", "ramdisk"]
    words: list[str | Path] = ["-kernel", mounted / "linux", "-initrd", mounted / "initrd.gz"]
    append = "console=ttyS0 nokaslr panic=-1 DEBIAN_FRONTEND=text priority=critical"
    machine = boot(processes, *words, "-append", append, megabytes=512)
    machine.wait_for_line(r"Linux version \d", timeout=BOOT_SECONDS)
    machine.wait_for_line(r"Run /init as init process", timeout=BOOT_SECONDS)
    # What only the installer in the initrd says.
    machine.wait_for_line(r"Starting system log daemon: syslogd", timeout=BOOT_SECONDS)
    machine.kill()
    assert mounted.log().count(" WARNING ") == 0


@pytest.mark.needs("grub")
@pytest.mark.parametrize(
    ("drive", "said"),
    [
        ("media=cdrom,readonly=on", r"Booting from DVD/CD"),
        ("media=disk,snapshot=on", r"Booting from Hard Disk"),
    ],
    ids=["cd", "disk"],
)
def test_a_machine_boots_from_a_drive_of_the_mount(drive: str, said: str, mounted: Mount, processes: Processes) -> None:
    mounted.run("cp", GRUB, "rescue.iso")
    assert mounted.image("rescue.iso").type == "machine"
    # The machine's clock counts its instructions: by the host's, GRUB waits a minute more whenever that is busy.
    words = ["-icount", "shift=auto", "-drive", f"file={mounted / 'rescue.iso'},format=raw,{drive}"]
    machine = boot(processes, *words, megabytes=128)
    machine.wait_for_line(said, timeout=BOOT_SECONDS)
    # The loader reads its modules and its menu from the drive before it draws this.
    machine.wait_for_line(r"GNU GRUB +versio", timeout=BOOT_SECONDS)
    machine.wait_for_line(r"Press enter to boot the selected OS", timeout=BOOT_SECONDS)
    machine.kill()
    assert mounted.image("rescue.iso").checksum is not None


@pytest.mark.needs("grub")
def test_a_machine_that_would_write_to_an_image_is_refused_before_it_starts(
    mounted: Mount, processes: Processes
) -> None:
    mounted.run("cp", GRUB, "rescue.iso")
    machine = boot(processes, "-drive", f"file={mounted / 'rescue.iso'},format=raw", megabytes=128)
    machine.wait_for_line(r"Could not open '.*rescue\.iso': Operation not permitted", timeout=BOOT_SECONDS)
    assert machine.wait() == 1
