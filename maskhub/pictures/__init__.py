"""Pictures and pages. Need matplotlib (the extra ``maskhub[plot]``)."""
