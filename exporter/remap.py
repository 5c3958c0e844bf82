"""placeholder, replaced right away"""


class Remap: ...
